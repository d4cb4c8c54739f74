// A vendor that answers at once: OpenAI's chat completions, whole, or as 50 events 10 ms apart. Written on sockets, so that it
// takes little of the core that it shares with the load. Prints its port, serves until it is killed.
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"strconv"
	"strings"
	"time"
)

const (
	events = 50
	gap    = 10 * time.Millisecond
	usage  = `"usage":{"prompt_tokens":250,"completion_tokens":180,"total_tokens":430}`
)

var (
	whole  = []byte(answer())
	opened = []byte("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
	first  = event(`"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null`)
	word   = event(`"choices":[{"index":0,"delta":{"content":" of the matter at hand"},"finish_reason":null}],"usage":null`)
	last   = event(`"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null`)
	closed = append(append(event(`"choices":[],`+usage), chunk("data: [DONE]\n\n")...), "0\r\n\r\n"...)
)

func answer() string {
	body := `{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"bench","choices":[{"index":0,` +
		`"message":{"role":"assistant","content":"` + strings.Repeat("words and ", 75) + `","refusal":null},"logprobs":null,` +
		`"finish_reason":"stop"}],` + usage + `}`
	return fmt.Sprintf("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s", len(body), body)
}

func event(rest string) []byte {
	return chunk(`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"bench",` +
		`"system_fingerprint":"fp_0123456789",` + rest + "}\n\n")
}

func chunk(data string) []byte {
	return []byte(fmt.Sprintf("%x\r\n%s\r\n", len(data), data))
}

func serve(peer net.Conn) {
	defer peer.Close()
	reader := bufio.NewReaderSize(peer, 256*1024)
	for {
		length := 0
		for {
			line, err := reader.ReadSlice('\n')
			if err != nil {
				return
			}
			if len(line) <= 2 {
				break
			}
			if name, value, _ := bytes.Cut(line, []byte(":")); bytes.EqualFold(name, []byte("content-length")) {
				length, _ = strconv.Atoi(string(bytes.TrimSpace(value)))
			}
		}
		body := make([]byte, length)
		if _, err := io.ReadFull(reader, body); err != nil {
			return
		}
		if !bytes.Contains(body, []byte(`"stream":true`)) {
			if _, err := peer.Write(whole); err != nil {
				return
			}
		} else if !stream(peer) {
			return
		}
	}
}

func stream(peer net.Conn) bool {
	next := time.Now()
	for index, piece := range pieces() {
		if index > 1 {
			next = next.Add(gap)
			time.Sleep(time.Until(next))
		}
		if _, err := peer.Write(piece); err != nil {
			return false
		}
	}
	return true
}

func pieces() [][]byte {
	all := [][]byte{opened, first}
	for index := 1; index < events; index++ {
		all = append(all, word)
	}
	return append(all, last, closed)
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	for {
		peer, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go serve(peer)
	}
}
