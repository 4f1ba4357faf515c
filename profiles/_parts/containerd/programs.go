//go:build never

// The programs of this part are main packages already. Nothing compiles this file; it is what `go mod tidy`
// goes by when it decides which modules go.mod needs.
package programs

import (
	_ "github.com/containerd/containerd/v2/cmd/containerd"
	_ "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"
	_ "github.com/containerd/containerd/v2/cmd/ctr"
)
