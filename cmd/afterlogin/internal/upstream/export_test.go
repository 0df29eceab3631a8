package upstream

// Check returns ErrBadOptions if New would not take the provider.
func Check(p Provider) error { return p.fill() }
