// Only a pin: with go.sum it says which copy of the module is the right one. The module itself is the main module of the
// build, its vendor.mod and vendor.sum being go.mod and go.sum there. Not for `go mod tidy`.
module minicluster/parts/docker-cli

go 1.26.0

toolchain go1.26.8

require github.com/docker/cli v29.9.2+incompatible
