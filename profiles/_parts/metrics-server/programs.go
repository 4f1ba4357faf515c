//go:build never

// The program of this part is a main package already. Nothing compiles this file; it is what `go mod tidy` goes by when it
// decides which modules go.mod needs.
package programs

import (
	_ "sigs.k8s.io/metrics-server/cmd/metrics-server"
)
