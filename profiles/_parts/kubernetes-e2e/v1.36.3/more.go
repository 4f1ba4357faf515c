package main

// What e2e_test.go of this minor version has and those of others have not.

import (
	"flag"

	_ "k8s.io/kubernetes/test/e2e/cloud"
	"k8s.io/kubernetes/test/e2e/invariants/logcheck"
	_ "k8s.io/kubernetes/test/e2e/lifecycle"
	_ "k8s.io/kubernetes/test/e2e/lifecycle/bootstrap"

	_ "k8s.io/kubernetes/test/utils/format" // prints objects as YAML in failures
)

func init() { logcheck.RegisterFlags(flag.CommandLine) }
