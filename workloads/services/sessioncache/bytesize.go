package main

import (
	"fmt"
	"strconv"
	"strings"
)

// byteSize is a flag's value such as 4096, 64KiB or 1GiB.
type byteSize int

var units = []struct {
	suffix string
	bytes  int
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}, {"", 1}}

func (b *byteSize) String() string { return strconv.Itoa(int(*b)) }

func (b *byteSize) Set(text string) error {
	for _, unit := range units {
		digits, found := strings.CutSuffix(text, unit.suffix)
		if !found {
			continue
		}
		number, err := strconv.Atoi(digits)
		if err != nil || number < 0 {
			return fmt.Errorf("%q is not a size such as 64MiB", text)
		}
		*b = byteSize(number * unit.bytes)
		return nil
	}
	return nil
}
