package demo

import (
	"fmt"
	"slices"
)

// A product is a thing in the shop. Its picture is the static file of its ID.
type product struct {
	ID      string
	Name    string
	Line    string // under its name in the catalogue
	Text    string // on its own page
	Picture string // what the picture shows, for those who do not see it
	Cents   int
}

// Price returns the price in words.
func (p product) Price() string { return euros(p.Cents) }

func euros(cents int) string { return fmt.Sprintf("€ %d.%02d", cents/100, cents%100) }

var catalogue = []product{
	{
		ID: "sencha", Name: "Sencha, first harvest", Cents: 1450,
		Line:    "Green tea, 100 g tin",
		Text:    "Steamed, rolled, and as green as the day it was picked. Brew it at 70 degrees for a minute, and then again: the second cup is the better one.",
		Picture: "A green tin with a leaf on its label",
	},
	{
		ID: "assam", Name: "Assam, full and malty", Cents: 990,
		Line:    "Black tea, 250 g bag",
		Text:    "The one for dark mornings. It stands milk, and it stands being forgotten on the table.",
		Picture: "A brown paper bag with a cup on its label",
	},
	{
		ID: "teapot", Name: "Stoneware teapot", Cents: 4800,
		Line:    "Cobalt blue, 0.8 litres",
		Text:    "Thrown by hand, so that no two are alike. It pours without a drop on the cloth.",
		Picture: "A round blue teapot",
	},
	{
		ID: "cup", Name: "Cup without a handle", Cents: 1600,
		Line:    "Heather glaze, 0.2 litres",
		Text:    "If the cup is too hot to hold, the tea is too hot to drink.",
		Picture: "A violet cup of tea, steaming",
	},
	{
		ID: "kettle", Name: "Gooseneck kettle", Cents: 7900,
		Line:    "Copper, 1 litre, for every hob",
		Text:    "The long neck pours slowly and exactly. The copper darkens with the years.",
		Picture: "A copper kettle with a long thin spout",
	},
	{
		ID: "infuser", Name: "Tea ball on a chain", Cents: 750,
		Line:    "Stainless steel, for one cup",
		Text:    "Two halves, many holes and a chain to pull it out by.",
		Picture: "A steel ball full of holes, on a chain",
	},
	{
		ID: "whisk", Name: "Matcha whisk", Cents: 2200,
		Line:    "Bamboo, eighty tines",
		Text:    "Split by hand from a single piece. Soak it before use, and let it dry standing.",
		Picture: "A bamboo whisk, tines down",
	},
	{
		ID: "honey", Name: "Heather honey", Cents: 1180,
		Line:    "500 g jar",
		Text:    "Dark, and so thick that the jar can be turned over. For tea that has no need of it, and toast that has.",
		Picture: "A jar of dark yellow honey",
	},
	{
		ID: "tray", Name: "Oak tray for two", Cents: 3900,
		Line:    "Oiled, 40 by 28 centimetres",
		Text:    "A rim against sliding cups, and room for two of them. The cups are not included.",
		Picture: "A wooden tray with two cups on it",
	},
}

// find returns the product with the id, and false if the shop has none.
func find(id string) (product, bool) {
	i := slices.IndexFunc(catalogue, func(p product) bool { return p.ID == id })
	if i < 0 {
		return product{}, false
	}
	return catalogue[i], true
}
