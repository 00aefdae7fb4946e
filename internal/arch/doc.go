// Package arch holds no code: its test keeps the imports of the other packages to the layers that docs/architecture.md draws.
package arch
