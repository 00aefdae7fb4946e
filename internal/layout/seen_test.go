package layout

import "testing"

func TestSeen(t *testing.T) {
	type output struct {
		maker Maker
		there bool
	}
	for name, test := range map[string]struct {
		outputs []output
		folder  bool
		want    bool
	}{
		"of here":                          {outputs: []output{{MadeHere, false}}, want: true},
		"of here and elsewhere":            {outputs: []output{{MadeHere, false}, {MadeElsewhere, false}}, want: true},
		"others of elsewhere are there":    {outputs: []output{{MadeElsewhere, true}, {MadeElsewhere, false}}, want: true},
		"others of anywhere are there":     {outputs: []output{{MakerUnknown, true}, {MakerUnknown, false}}, want: true},
		"those of here alone are there":    {outputs: []output{{MadeHere, true}, {MadeElsewhere, false}}, folder: true},
		"none is there":                    {outputs: []output{{MadeElsewhere, false}}},
		"none is there, but the folder is": {outputs: []output{{MadeElsewhere, false}, {MakerUnknown, false}}, folder: true, want: true},
		"of a worker that left":            {outputs: []output{{MadeHere, true}, {MakerLeft, false}}, want: true},
		"those of one that left are there": {outputs: []output{{MakerLeft, true}, {MadeElsewhere, false}}},
		"some of all are there":            {outputs: []output{{MadeHere, true}, {MadeElsewhere, true}, {MadeElsewhere, false}}, want: true},
	} {
		var seen Seen
		for _, o := range test.outputs {
			seen.Add(o.maker, o.there)
		}
		if got := seen.Lost(func() bool { return test.folder }); got != test.want {
			t.Errorf("%s: Lost() = %v, want %v", name, got, test.want)
		}
	}
}
