package replica

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/bridgefour/bridgefour/internal/replica/core"
)

// raftLogger sends raft's own messages to slog at debug level: this package logs what operators need.
type raftLogger struct{ log *slog.Logger }

func (l raftLogger) put(level slog.Level, v []any) {
	if ctx := context.Background(); l.log.Enabled(ctx, level) {
		l.log.Log(ctx, level, "raft", "text", fmt.Sprint(v...))
	}
}

func (l raftLogger) putf(level slog.Level, format string, v []any) {
	if ctx := context.Background(); l.log.Enabled(ctx, level) {
		l.log.Log(ctx, level, "raft", "text", fmt.Sprintf(format, v...))
	}
}

func (l raftLogger) Debug(v ...any)                   { l.put(slog.LevelDebug, v) }
func (l raftLogger) Debugf(format string, v ...any)   { l.putf(slog.LevelDebug, format, v) }
func (l raftLogger) Info(v ...any)                    { l.put(slog.LevelDebug, v) }
func (l raftLogger) Infof(format string, v ...any)    { l.putf(slog.LevelDebug, format, v) }
func (l raftLogger) Warning(v ...any)                 { l.put(slog.LevelDebug, v) }
func (l raftLogger) Warningf(format string, v ...any) { l.putf(slog.LevelDebug, format, v) }
func (l raftLogger) Error(v ...any)                   { l.put(slog.LevelError, v) }
func (l raftLogger) Errorf(format string, v ...any)   { l.putf(slog.LevelError, format, v) }

func (l raftLogger) Fatal(v ...any) { panic(core.InvariantError(fmt.Sprint(v...))) }
func (l raftLogger) Fatalf(format string, v ...any) {
	panic(core.InvariantError(fmt.Sprintf(format, v...)))
}
func (l raftLogger) Panic(v ...any) { panic(core.InvariantError(fmt.Sprint(v...))) }
func (l raftLogger) Panicf(format string, v ...any) {
	panic(core.InvariantError(fmt.Sprintf(format, v...)))
}

// walLogger sends the messages of etcd's write-ahead log to slog: warnings as warnings, the rest at debug level (its errors are also
// returned, and handled).
func walLogger(log *slog.Logger) *zap.Logger {
	return zap.New(slogCore{log: log}, zap.WithFatalHook(zapcore.WriteThenPanic))
}

type slogCore struct {
	log    *slog.Logger
	fields []zapcore.Field
}

func slogLevel(l zapcore.Level) slog.Level {
	if l == zapcore.WarnLevel {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

func (c slogCore) Enabled(l zapcore.Level) bool {
	return c.log.Enabled(context.Background(), slogLevel(l))
}

func (c slogCore) With(fields []zapcore.Field) zapcore.Core {
	return slogCore{log: c.log, fields: slices.Concat(c.fields, fields)}
}

func (c slogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range slices.Concat(c.fields, fields) {
		f.AddTo(enc)
	}
	c.log.Log(context.Background(), slogLevel(e.Level), "write-ahead log", "text", e.Message, "fields", enc.Fields)
	return nil
}

func (c slogCore) Sync() error { return nil }
