//go:build tools

// Package interop pins the programs that the build needs.
package interop

import _ "google.golang.org/protobuf/cmd/protoc-gen-go"
