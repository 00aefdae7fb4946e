package transport

import (
	"slices"
	"strings"
	"testing"
)

func TestJoin(t *testing.T) {
	pin := Pin{1, 2, 0xfe}
	for _, j := range []Join{
		{Addresses: []string{"10.0.0.7:6550"}, Authority: &pin, Token: "abc_d-E"},
		{Addresses: []string{"a:1", "[fe80::1%eth0]:6550", "[::1]:2"}, Authority: &pin, Token: "x"},
		{Addresses: []string{"127.0.0.1:6550"}, Token: "x"},
	} {
		got, err := ParseJoin(" " + j.String() + "\n")
		if err != nil || !slices.Equal(got.Addresses, j.Addresses) || got.Token != j.Token || (got.Authority == nil) != (j.Authority == nil) ||
			j.Authority != nil && *got.Authority != *j.Authority {
			t.Errorf("ParseJoin(%q) = %+v, %v, want %+v", j, got, err, j)
		}
		if !IsJoin(j.String()) || strings.Trim(j.String(), "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:.,%_[]-/") != "" {
			t.Errorf("%q needs quotes in a shell, or is no join string", j)
		}
	}
	whole := Join{Addresses: []string{"10.0.0.7:6550"}, Authority: &pin, Token: "secretsecret"}.String()
	for _, text := range []string{
		"", "b4:", "b4://", whole[1:], whole + "/", strings.TrimSuffix(whole, "secretsecret"), strings.Replace(whole, ":6550", "", 1),
		strings.Replace(whole, "/", "/A", 1), strings.Replace(whole, "AQ", "A", 1), strings.Replace(whole, "10.0", "1 0", 1), whole + "é",
		whole + strings.Repeat("x", tokenBytesMax), strings.Replace(whole, "10", strings.Repeat("a:1,", 20)+"10", 1), "b4:a:1//x/y",
	} {
		_, err := ParseJoin(text)
		if err == nil || strings.Contains(err.Error(), "secretsecret") || !strings.Contains(err.Error(), "token create") {
			t.Errorf("ParseJoin(%q) = %v, want an error that names the way out, without the secret", text, err)
		}
	}
	for _, address := range []string{"b4:6550", "10.0.0.7:6550", "b4", "b4:1,b5:2"} {
		if IsJoin(address) {
			t.Errorf("IsJoin(%q) = true, want false: it is an address", address)
		}
	}
}

func FuzzParseJoin(f *testing.F) {
	f.Add(Join{Addresses: []string{"a:1", "[::1]:2"}, Authority: &Pin{1}, Token: "a_b"}.String())
	f.Add("b4:a:1//x")
	f.Add("b4:/x/")
	f.Fuzz(func(t *testing.T, text string) {
		j, err := ParseJoin(text)
		if err != nil {
			return
		}
		if again, err := ParseJoin(j.String()); err != nil || again.String() != strings.TrimSpace(text) {
			t.Errorf("ParseJoin(%q).String() = %q, %v", text, again, err)
		}
	})
}
