package main

// What e2e_test.go of this minor version has and those of others have not.

import (
	"flag"

	"k8s.io/kubernetes/test/e2e/invariants/logcheck"

	_ "k8s.io/kubernetes/test/utils/ktesting/format" // prints objects as YAML in failures
)

func init() { logcheck.RegisterFlags(flag.CommandLine) }
