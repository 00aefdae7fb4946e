// Package engine makes a program of jobs. The program is a whole Bridge Four for them: it runs them in an embedded cluster, submits them
// to another one, and is a leader or a worker that has them.
//
//	func main() { engine.Main(words.Job) }
//
// It is apart from package bridgefour so that jobs and their tests build without the engine.
package engine

import (
	"os"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/cli"
)

// Main runs the command line of this process, and exits. It is that of bridgefour, with the given jobs instead of its built-in ones, except that "run" and
// the job's name can be left out if there is one job:
//
//	go run . --input books/ --output counts
//	go build -o words . && ./words worker --leader 10.0.0.1:6550
//	./words --describe
func Main(jobs ...bridgefour.Job) { os.Exit(cli.MainOfJobs(jobs)) }
