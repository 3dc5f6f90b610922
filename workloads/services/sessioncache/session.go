package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

const (
	// minimalObject is what a session takes without any free text.
	minimalObject = 512

	itemBytes = 120
	letters   = "abcdefghijklmnopqrstuvwxyz ,.-ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
)

// Session is one user's state: strings, numbers, a slice and a map, as real ones have.
type Session struct {
	ID         string            `json:"id"`
	User       string            `json:"user"`
	Email      string            `json:"email"`
	Roles      []string          `json:"roles"`
	Cart       []Item            `json:"cart"`
	Attributes map[string]string `json:"attributes"`
	Note       string            `json:"note"`
	Expires    time.Time         `json:"expires"`
}

// Item is one thing in a cart.
type Item struct {
	SKU      string  `json:"sku"`
	Title    string  `json:"title"`
	Quantity int     `json:"quantity"`
	Price    float64 `json:"price"`
}

// makeSession is a function of its arguments only. Sizes vary between half and one and a half times
// the average.
func makeSession(seed uint64, number, size int, expires time.Time) Session {
	random := rand.New(rand.NewPCG(seed, uint64(number)))
	size = size/2 + random.IntN(size+1)
	items := random.IntN(max(1, min(20, size/4/itemBytes)) + 1)
	session := Session{
		ID:         sessionID(number),
		User:       "user " + text(random, 12),
		Email:      fmt.Sprintf("user%d@example.org", number),
		Roles:      []string{"customer", "newsletter"}[:1+random.IntN(2)],
		Cart:       make([]Item, 0, items),
		Attributes: map[string]string{"theme": text(random, 6), "language": text(random, 2)},
		Expires:    expires,
	}
	for n := 0; n < items; n++ {
		session.Cart = append(session.Cart, Item{
			SKU:      fmt.Sprintf("sku-%06d", random.IntN(1_000_000)),
			Title:    text(random, 40),
			Quantity: 1 + random.IntN(5),
			Price:    float64(random.IntN(100_000)) / 100,
		})
	}
	session.Note = text(random, max(0, size-minimalObject-items*itemBytes))
	return session
}

func sessionID(number int) string { return fmt.Sprintf("s%08d", number) }

func text(random *rand.Rand, length int) string {
	var builder strings.Builder
	builder.Grow(length)
	for builder.Len() < length {
		bits := random.Uint64()
		for n := 0; n < 8 && builder.Len() < length; n++ {
			builder.WriteByte(letters[bits&63])
			bits >>= 8
		}
	}
	return builder.String()
}

// throughJSON is how sessions come from elsewhere: encoded and decoded, with the garbage of both.
func throughJSON(session Session) *Session {
	encoded, err := json.Marshal(session)
	if err != nil {
		panic(err) // the type has nothing that can't be encoded
	}
	decoded := new(Session)
	if err := json.Unmarshal(encoded, decoded); err != nil {
		panic(err)
	}
	return decoded
}
