// e2e.test is Kubernetes's own end-to-end tests as one program. k8s.io/kubernetes/test/e2e/e2e_test.go makes it as a test
// of Go, which cannot be compiled out of another module's tree in the way programs are: this main does what that does.
//
// One thing is added: where $E2E_RESULTS names a file, the result of each test is appended to it as a line of JSON, as
// soon as the test has ended. So a run that was interrupted can be resumed.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"

	"k8s.io/component-base/version"
	conformancetestdata "k8s.io/kubernetes/test/conformance/testdata"
	"k8s.io/kubernetes/test/e2e"
	"k8s.io/kubernetes/test/e2e/framework"
	"k8s.io/kubernetes/test/e2e/framework/config"
	"k8s.io/kubernetes/test/e2e/framework/testfiles"
	e2etestingmanifests "k8s.io/kubernetes/test/e2e/testing-manifests"
	testfixtures "k8s.io/kubernetes/test/fixtures"

	_ "k8s.io/kubernetes/test/e2e/feature" // defines the features that tests may ask for

	_ "k8s.io/kubernetes/test/e2e/apimachinery"
	_ "k8s.io/kubernetes/test/e2e/apps"
	_ "k8s.io/kubernetes/test/e2e/architecture"
	_ "k8s.io/kubernetes/test/e2e/auth"
	_ "k8s.io/kubernetes/test/e2e/autoscaling"
	_ "k8s.io/kubernetes/test/e2e/common"
	_ "k8s.io/kubernetes/test/e2e/dra"
	_ "k8s.io/kubernetes/test/e2e/instrumentation"
	_ "k8s.io/kubernetes/test/e2e/invariants"
	_ "k8s.io/kubernetes/test/e2e/kubectl"
	_ "k8s.io/kubernetes/test/e2e/network"
	_ "k8s.io/kubernetes/test/e2e/node"
	_ "k8s.io/kubernetes/test/e2e/scheduling"
	_ "k8s.io/kubernetes/test/e2e/storage"
	_ "k8s.io/kubernetes/test/e2e/storage/csimock"
	_ "k8s.io/kubernetes/test/e2e/storage/external"
	_ "k8s.io/kubernetes/test/e2e/windows"

	_ "k8s.io/kubernetes/test/e2e/framework/debug/init"
	_ "k8s.io/kubernetes/test/e2e/framework/metrics/init"
	_ "k8s.io/kubernetes/test/e2e/framework/node/init"
)

// result is a line of $E2E_RESULTS.
type result struct {
	Name    string    `json:"name"`
	State   string    `json:"state"` // passed, skipped, failed, …: ginkgo's words
	Start   time.Time `json:"start"`
	Seconds float64   `json:"seconds"`
	Message string    `json:"message"` // why it failed, or was skipped
	Where   string    `json:"where"`   // file and line of the failure
}

func record(path string, report ginkgo.SpecReport) {
	// Tests that were not selected are reported as skipped, without a message; what was interrupted has no result.
	unselected := report.State == types.SpecStateSkipped && report.Failure.Message == ""
	if unselected || report.State.Is(types.SpecStatePending|types.SpecStateInterrupted) {
		return
	}
	line, err := json.Marshal(result{
		report.FullText(), report.State.String(), report.StartTime, report.RunTime.Seconds(),
		report.FailureMessage(), report.FailureLocation().String(),
	})
	if err == nil {
		err = appendTo(path, append(line, '\n'))
	}
	if err != nil {
		ginkgo.AbortSuite(fmt.Sprintf("cannot write %s: %v", path, err))
	}
}

// appendTo writes in one call, so that lines of several processes do not mix.
func appendTo(path string, line []byte) error {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := file.Write(line); err != nil {
		file.Close()
		return err
	}
	return file.Close()
}

func main() {
	testing.Init() // the flags that ginkgo gives to test programs
	versionFlag := flag.Bool("version", false, "Displays version information.")
	listConformance := flag.Bool("list-conformance-tests", false, "Prints the description of the conformance tests.")
	config.CopyFlags(config.Flags, flag.CommandLine)
	framework.RegisterCommonFlags(flag.CommandLine)
	framework.RegisterClusterFlags(flag.CommandLine)
	flag.Parse()
	if *versionFlag {
		fmt.Println(version.Get().GitVersion)
		return
	}
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "e2e.test: unknown arguments: %q\n", flag.Args())
		os.Exit(1)
	}
	testfiles.AddFileSource(e2etestingmanifests.GetE2ETestingManifestsFS())
	testfiles.AddFileSource(testfixtures.GetTestFixturesFS())
	testfiles.AddFileSource(conformancetestdata.GetConformanceTestdataFS())
	if *listConformance {
		data, err := testfiles.Read("test/conformance/testdata/conformance.yaml")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Stdout.Write(data)
		return
	}
	framework.AfterReadingAllFlags(&framework.TestContext)
	// Not sooner: the framework looks through all tests in a trial run, after which ginkgo forgets such functions.
	if path := os.Getenv("E2E_RESULTS"); path != "" {
		ginkgo.ReportAfterEach(func(report ginkgo.SpecReport) { record(path, report) })
	}
	always := func(string, string) (bool, error) { return true, nil }
	testing.Main(always, []testing.InternalTest{{Name: "TestE2E", F: e2e.RunE2ETests}}, nil, nil)
}
