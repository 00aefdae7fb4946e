// Package deploy has the tests of what is in the folder deploy and takes minutes: the image, clusters of containers, services, and the packages.
package deploy
