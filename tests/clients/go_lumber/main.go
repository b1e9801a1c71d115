// Command golumber sends numbered documents with Elastic's own Lumberjack client, as Filebeat reads them from a file. A window
// whose ack does not come is sent again, without the documents that were acknowledged, over a new connection.
//
//	golumber ADDRESS COUNT
//
// It prints {"acked": [numbers]} for each window.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	client "github.com/elastic/go-lumber/client/v2"
)

const windowSize = 100

func document(number int) map[string]any {
	return map[string]any{
		"@timestamp": "2026-01-02T03:04:05.678Z",
		"@metadata":  map[string]any{"beat": "golumber", "version": "9.1.0"},
		"message":    fmt.Sprintf("event %d", number),
		"n":          number,
		"log":        map[string]any{"offset": number * 20, "file": map[string]any{"path": "/var/log/shop.log"}},
	}
}

func main() {
	address := os.Args[1]
	count, err := strconv.Atoi(os.Args[2])
	if err != nil {
		panic(err)
	}
	var connection *client.SyncClient
	for next := 0; next < count; {
		if connection == nil {
			// plain and compressed windows by turns
			level := client.CompressionLevel(next / windowSize % 2 * 3)
			if connection, err = client.SyncDial(address, level, client.Timeout(20*time.Second)); err != nil {
				connection = nil
				time.Sleep(50 * time.Millisecond)
				continue
			}
		}
		var documents []any
		for number := next; number < count && len(documents) < windowSize; number++ {
			documents = append(documents, document(number))
		}
		taken, err := connection.Send(documents)
		acked := make([]int, taken)
		for at := range acked {
			acked[at] = next + at
		}
		line, _ := json.Marshal(map[string]any{"acked": acked})
		fmt.Println(string(line))
		next += taken
		if err != nil || next/windowSize%5 == 0 {
			connection.Close()
			connection = nil
		}
	}
}
