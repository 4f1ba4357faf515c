//go:build never

// The programs of this part are main packages already. Nothing compiles this file; it is what `go mod tidy`
// goes by when it decides which modules go.mod needs.
package programs

import (
	_ "github.com/moby/moby/v2/cmd/docker-proxy"
	_ "github.com/moby/moby/v2/cmd/dockerd"
)
