package access

import (
	"fmt"
	"slices"
	"strings"
)

// Roles of users, each with what the one before it may do, and of machines.
const (
	RoleRead     = "read"     // sees jobs, but no arguments, settings, logs and results of other users
	RoleSubmit   = "submit"   // its own jobs: everything
	RoleOperator = "operator" // all jobs; drains workers
	RoleAdmin    = "admin"    // leaders, workers, tokens
	RoleWorker   = "worker"
	RoleLeader   = "leader"
)

// Roles are the names of all roles.
//
//nolint:gochecknoglobals // a read-only list
var Roles = []string{RoleRead, RoleSubmit, RoleOperator, RoleAdmin, RoleWorker, RoleLeader}

// permissionsOf returns the permissions of a role; none if this version does not know it.
func permissionsOf(role string) Permission {
	switch role {
	case RoleRead:
		return Read
	case RoleSubmit:
		return Read | Submit
	case RoleOperator:
		return Read | Submit | Operate
	case RoleAdmin:
		return Read | Submit | Operate | Manage | Invite
	case RoleWorker:
		return Work | Enroll
	case RoleLeader:
		return Replicate | Enroll | Invite
	}
	return 0
}

// IsMachine reports whether a role is one of machines.
func IsMachine(role string) bool { return role == RoleWorker || role == RoleLeader }

// CheckRole returns an error unless there is such a role.
func CheckRole(role string) error {
	if !slices.Contains(Roles, role) {
		return fmt.Errorf("unknown role %.50q: want one of %s", role, strings.Join(Roles, ", "))
	}
	return nil
}
