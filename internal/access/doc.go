// Package access decides who may use a server.
package access
