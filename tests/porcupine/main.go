// Reads histories of one register as JSON lines and prints, for each, whether porcupine finds it linearizable.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"

	"github.com/anishathalye/porcupine"
)

type operation struct {
	Client   int    `json:"client"`
	Kind     string `json:"kind"`
	Value    int    `json:"value"`
	Expected int    `json:"expected"`
	Ok       bool   `json:"ok"`
	Called   int64  `json:"called"`
	Returned int64  `json:"returned"` // -1: never
}

var register = porcupine.Model{
	Init: func() interface{} { return 0 },
	Step: func(state, input, output interface{}) (bool, interface{}) {
		now, op := state.(int), input.(operation)
		switch {
		case op.Kind == "read":
			return op.Value == now, now
		case op.Kind == "write":
			return true, op.Value
		case op.Returned < 0 && now == op.Expected:
			return true, op.Value
		case op.Returned < 0:
			return true, now
		case op.Ok:
			return now == op.Expected, op.Value
		}
		return now != op.Expected, now
	},
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(make([]byte, 1<<20), 1<<26)
	for lines.Scan() {
		var history []operation
		if err := json.Unmarshal(lines.Bytes(), &history); err != nil {
			panic(err)
		}
		operations := make([]porcupine.Operation, len(history))
		for i, op := range history {
			returned := op.Returned
			if returned < 0 {
				returned = math.MaxInt64
			}
			operations[i] = porcupine.Operation{ClientId: i, Input: op, Call: op.Called, Output: nil, Return: returned}
		}
		fmt.Println(porcupine.CheckOperations(register, operations))
	}
}
