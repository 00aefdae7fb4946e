package runner

import (
	"fmt"
	"maps"
	"os/user"
	"strconv"
	"syscall"

	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/program"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// Submitter is the value of Users.RunAs for the user who has submitted the job.
const Submitter = "submitter"

// Users says as which users a worker runs commands, and uses the files of their jobs.
type Users struct {
	// RunAs is a name, or a number, or Submitter. Only root can use it. Defaults to the worker's own user.
	RunAs string
	// Host is for messages.
	Host string
	// Stores hold the inputs and outputs.
	Stores blob.Stores
}

// Access is as whom a job is run, and how its files are used.
type Access struct {
	User    *program.User // nil: the worker's own
	Inputs  blob.Stores
	Outputs blob.Stores // of the worker itself for a job in the cluster's spool
}

// Of returns the access of a job. The error is for users.
func (u *Users) Of(j *wire.Job) (Access, error) {
	account, err := u.account(j)
	if account == nil || err != nil {
		return Access{Inputs: u.Stores, Outputs: u.Stores}, err
	}
	a := Access{User: account, Inputs: maps.Clone(u.Stores), Outputs: u.Stores}
	if a.Inputs == nil {
		a.Inputs = blob.Stores{}
	}
	a.Inputs[""] = blob.NewUserFiles(account.Credential)
	if !j.GetSpool() {
		a.Outputs = a.Inputs
	}
	return a, nil
}

// account returns the user of a job; nil: the worker's own.
func (u *Users) account(j *wire.Job) (*program.User, error) {
	name := u.RunAs
	switch name {
	case "":
		return nil, nil //nolint:nilnil // see above
	case Submitter:
		if name = j.GetUser(); name == "" {
			return nil, fmt.Errorf("job %d has no user, as whom the worker on %s would run it (--run-as submitter)", j.GetId(), u.Host)
		}
	}
	account, err := user.Lookup(name)
	if err != nil {
		if account, err = user.LookupId(name); err != nil || u.RunAs == Submitter {
			return nil, fmt.Errorf("user %q is not known on %s: create the account there, or start the worker with --run-as NAME of one that is", name, u.Host)
		}
	}
	ids, err := account.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("groups of user %q on %s: %w", name, u.Host, err)
	}
	credential := &syscall.Credential{}
	for _, id := range append([]string{account.Uid, account.Gid}, ids...) {
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("user %q on %s: %w", name, u.Host, err)
		}
		credential.Groups = append(credential.Groups, uint32(n))
	}
	credential.Uid, credential.Gid, credential.Groups = credential.Groups[0], credential.Groups[1], credential.Groups[2:]
	if credential.Uid == 0 {
		return nil, fmt.Errorf("the worker on %s runs no commands as root (--run-as)", u.Host)
	}
	return &program.User{Name: account.Username, Home: account.HomeDir, Credential: credential}, nil
}
