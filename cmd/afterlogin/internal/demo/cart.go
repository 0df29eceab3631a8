package demo

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"

	"github.com/afterlogin/afterlogin"
)

// cartKey is the key of the cart in the session's data.
const cartKey = "cart"

// maxQuantity is the most that a cart takes of one product.
const maxQuantity = 99

// A cart is what a session carries for the shop, as JSON in its data. It belongs to the session and not to its token: it
// survives renewals and moves along at a sign-in.
type cart struct {
	// ID names what will be the order, so that a checkout that is sent twice orders once.
	ID    string `json:"id"`
	Items []item `json:"items"`
}

type item struct {
	Product  string `json:"product"`
	Quantity int    `json:"quantity"`
}

// readCart returns the cart in the data, an empty one if there is none.
func readCart(d *afterlogin.Data) (cart, error) {
	var c cart
	if d == nil {
		return c, nil
	}
	_, err := d.Get(cartKey, &c)
	return c, err
}

// changeCart returns a change of session data that applies change to the cart.
func changeCart(change func(*cart) error) func(*afterlogin.Data) error {
	return func(d *afterlogin.Data) error {
		c, err := readCart(d)
		if err != nil {
			return err
		}
		if err := change(&c); err != nil {
			return err
		}
		if len(c.Items) == 0 {
			d.Delete(cartKey)
			return nil
		}
		if c.ID == "" {
			c.ID = rand.Text()
		}
		return d.Set(cartKey, c)
	}
}

// add puts more of the product into the cart.
func (c *cart) add(p product, quantity int) error {
	for i := range c.Items {
		if c.Items[i].Product == p.ID {
			return c.set(p, c.Items[i].Quantity+quantity)
		}
	}
	c.Items = append(c.Items, item{Product: p.ID})
	return c.set(p, quantity)
}

// set makes it that many of a product that is in the cart. A product that is not in it any more (it was removed in
// another tab) comes back.
func (c *cart) set(p product, quantity int) error {
	if quantity > maxQuantity {
		return badInput{"quantity", fmt.Sprintf("the cart would hold %d of %q, and takes %d at the most", quantity, p.Name, maxQuantity)}
	}
	for i := range c.Items {
		if c.Items[i].Product == p.ID {
			c.Items[i].Quantity = quantity
			return nil
		}
	}
	c.Items = append(c.Items, item{Product: p.ID, Quantity: quantity})
	return nil
}

// remove takes the product out of the cart.
func (c *cart) remove(p product) {
	c.Items = slices.DeleteFunc(c.Items, func(i item) bool { return i.Product == p.ID })
}

// count is how many things are in the cart.
func (c *cart) count() (n int) {
	for _, i := range c.Items {
		n += i.Quantity
	}
	return n
}

// A bill is a cart or an order for people to read.
type bill struct {
	Lines []line
	Cents int
}

type line struct {
	Product  product
	Quantity int
}

// Total is the line's price in words.
func (l line) Total() string { return euros(l.Product.Cents * l.Quantity) }

// Total is the sum in words.
func (b bill) Total() string { return euros(b.Cents) }

// newBill looks up the items' products. One that the shop no longer has (in a cart kept with --data) is passed over.
func newBill(items []item) bill {
	var b bill
	for _, i := range items {
		p, ok := find(i.Product)
		if !ok {
			continue
		}
		b.Lines = append(b.Lines, line{p, i.Quantity})
		b.Cents += p.Cents * i.Quantity
	}
	return b
}

// A badInput is a form field that the shop cannot take. It names the field and what would do.
type badInput struct{ Field, Text string }

func (e badInput) Error() string { return e.Field + ": " + e.Text }

// parseQuantity reads a quantity from a form; a form without one means 1.
func parseQuantity(text string) (int, error) {
	if text == "" {
		return 1, nil
	}
	n, err := strconv.Atoi(text)
	if len(text) > 20 || err != nil || n < 1 || n > maxQuantity {
		return 0, badInput{"quantity", fmt.Sprintf("want a whole number from 1 to %d, got %.20q", maxQuantity, text)}
	}
	return n, nil
}

// parseProduct finds the product that a form names.
func parseProduct(id string) (product, error) {
	p, ok := find(id)
	if !ok {
		return p, badInput{"product", fmt.Sprintf("the shop has no %.40q", id)}
	}
	return p, nil
}
