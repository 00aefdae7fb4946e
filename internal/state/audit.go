package state

// Audit is the record of a request: its principal, address and action, and the verdict on it.
type Audit struct {
	User    string
	Role    string
	Token   string // the id of the token; empty: none
	Address string // host:port; empty: a unix socket
	Action  string // method and path of the request
	Verdict string // empty: it was done; else why it was refused. Set by Apply, unless the request did not get that far
	Subject string // what was changed, if Action does not say it. Set by Apply
}

// Audit records a request that is done, or was refused, without another command. It needs feature level 2: below that, it adds nothing.
func (e *Entry) Audit(key string, a *Audit) {
	if e.level >= 2 {
		e.add(cmdAudit, &command{key: key, by: a})
	}
}

// audit adds the fact of a command that a client has asked for.
func (m *Machine) audit(c *command, answer *Event) {
	if c.by == nil {
		return
	}
	a := *c.by
	if answer.Err != nil {
		a.Verdict = answer.Err.Error()
	}
	for _, text := range []*string{&a.User, &a.Role, &a.Token, &a.Address, &a.Action, &a.Verdict} {
		*text = shorten(*text)
	}
	a.Subject = answer.Message
	m.addFact(&Fact{Kind: Audited, Job: answer.Job, Worker: answer.Worker, Audit: &a})
}

func (c *codec) audit(a *Audit) {
	c.string(1, &a.User)
	c.string(2, &a.Role)
	c.string(3, &a.Token)
	c.string(4, &a.Address)
	c.string(5, &a.Action)
	c.string(6, &a.Verdict)
	c.string(7, &a.Subject)
	c.end("an audit record")
}
