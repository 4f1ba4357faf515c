package main

import "github.com/spf13/cobra"

// addFlags adds the flags of etcdutl that not every version has: 3.6 has none of them.
func addFlags(*cobra.Command) {}
