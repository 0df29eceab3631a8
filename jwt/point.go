package jwt

import (
	"crypto/ed25519"
	"math/big"
	"slices"
)

// What ed25519.Verify does not look at before there is a signature, and crypto/rsa not at all. It is done once for each
// key, with public numbers, so that neither speed nor constant time matters.

var (
	edP     = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19)) // the field of Ed25519
	edD     = number("37095705934669439343138083508754565189542113879843219016388785533085940283555")
	edEight = number("2707385501144840649318225287225658788936804267575313519463743609750303402022") // y of order 8; the other is p-y
)

func number(decimal string) *big.Int {
	n, ok := new(big.Int).SetString(decimal, 10)
	if !ok {
		panic(decimal)
	}
	return n
}

// goodPoint reports whether the key is the one encoding of a point of Ed25519 (RFC 8032, 5.1.3) that is not of small
// order: with a key of small order one signature fits many messages.
func goodPoint(key ed25519.PublicKey) bool {
	if len(key) != ed25519.PublicKeySize {
		return false
	}
	b := slices.Clone(key)
	b[31] &= 0x7f
	slices.Reverse(b)
	y := new(big.Int).SetBytes(b)
	if y.Cmp(edP) >= 0 {
		return false
	}
	one := big.NewInt(1)
	for _, small := range []*big.Int{{}, one, new(big.Int).Sub(edP, one), edEight, new(big.Int).Sub(edP, edEight)} {
		if y.Cmp(small) == 0 {
			return false
		}
	}
	// x² = (y²-1) / (d·y²+1) must be a square. x is not 0: that is y = ±1.
	yy := new(big.Int).Mul(y, y)
	over := new(big.Int).Sub(yy, one)
	under := yy.Mul(yy, edD)
	under.Add(under, one).Mod(under, edP)
	if under.ModInverse(under, edP) == nil {
		return false
	}
	return big.Jacobi(over.Mul(over, under).Mod(over, edP), edP) == 1
}

// rocaPrimes are those whose residues give a key of the flawed generator away.
var rocaPrimes = []int64{3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103,
	107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167}

// roca reports whether the modulus is a power of 65537 modulo each of the primes, as those of the flawed generator are
// and one in a hundred million others is (Nemec et al., The Return of Coppersmith's Attack, 2017).
func roca(n *big.Int) bool {
	for _, p := range rocaPrimes {
		residue := new(big.Int).Mod(n, big.NewInt(p)).Int64()
		found := false
		for v, first := int64(1), true; (first || v != 1) && !found; first = false {
			found = v == residue
			v = v * 65537 % p
		}
		if !found {
			return false
		}
	}
	return true
}
