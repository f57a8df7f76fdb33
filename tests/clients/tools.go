//go:build tools

// Package clients pins the command-line clients that the tests drive.
// helm's command is a main package already, so an import is all that pinning it needs.
package clients

import _ "helm.sh/helm/v4/cmd/helm"
