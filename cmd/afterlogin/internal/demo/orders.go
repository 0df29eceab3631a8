package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// maxOrders is how many orders the demo keeps; the oldest are forgotten first.
const maxOrders = 1000

// An order is what somebody bought. It belongs to the person and not to a session.
type order struct {
	ID      string    `json:"id"` // of the cart it was
	Number  int       `json:"number"`
	Subject string    `json:"subject"`
	At      time.Time `json:"at"`
	Items   []item    `json:"items"`
}

// An orderBook keeps the orders, in a file if it has a path.
type orderBook struct {
	path string // empty: in memory only

	// mu guards orders and the file.
	mu     sync.Mutex
	orders []order
}

// openOrders reads the file, if there is one.
func openOrders(path string) (*orderBook, error) {
	b := &orderBook{path: path}
	if path == "" {
		return b, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, 16<<20)).Decode(&b.orders); err != nil {
		return nil, fmt.Errorf("%s: not a list of orders: %w", path, err)
	}
	return b, nil
}

// place keeps the order and returns its number. A cart that was ordered before is not ordered again.
func (b *orderBook) place(subject string, c cart, at time.Time) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	last := 1000
	for _, o := range b.orders {
		if o.ID == c.ID && o.Subject == subject {
			return o.Number, nil
		}
		last = max(last, o.Number)
	}
	o := order{ID: c.ID, Number: last + 1, Subject: subject, At: at, Items: c.Items}
	orders := append(b.orders[max(0, len(b.orders)+1-maxOrders):len(b.orders):len(b.orders)], o)
	if b.path != "" {
		if err := writePrivate(b.path, orders); err != nil {
			return 0, err
		}
	}
	b.orders = orders
	return o.Number, nil
}

// of returns the subject's orders, newest first.
func (b *orderBook) of(subject string) []order {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []order
	for i := len(b.orders) - 1; i >= 0; i-- {
		if b.orders[i].Subject == subject {
			out = append(out, b.orders[i])
		}
	}
	return out
}

// sold is how much of the product was ordered.
func (b *orderBook) sold(product string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, o := range b.orders {
		for _, i := range o.Items {
			if i.Product == product {
				n += i.Quantity
			}
		}
	}
	return n
}

// writePrivate writes v as JSON to a file that only its owner can read, all of it or nothing.
func writePrivate(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".demo-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // fails once the file is in place
	_, err = tmp.Write(append(b, '\n'))
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
