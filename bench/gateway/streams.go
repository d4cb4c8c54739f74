// Many slow streams at once: a vendor that sends each a chunk every 100 ms, and the clients that read them through a gateway. Both in
// one program, so that one clock tells how late a chunk is.
//
//	streams COUNT SECONDS
//
// Prints the vendor's port, and reads one line: the gateway's address and a file that holds one whole request. Opens the streams within
// a few seconds, prints `begin` ten seconds after each has had a chunk, `end` after SECONDS, and then one line of JSON about what came in between.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	gap      = 100 * time.Millisecond
	opening  = 2 * time.Millisecond // Between one stream's beginning and the next one's.
	settling = 10 * time.Second
	stamp    = 19 // Digits of the time in nanoseconds, after `@`.
	step     = 100 * time.Microsecond
	steps    = 100_000
)

var (
	head                       = []byte("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
	seen                       [steps + 1]atomic.Int64 // Chunks by how late they were, in steps; the last one is whatever is later.
	sent, most, broken, opened atomic.Int64
	measuring, over            atomic.Bool
)

type figures struct {
	Streams int64   `json:"streams"`
	Broken  int64   `json:"broken"`
	Sent    int64   `json:"sent"`
	Chunks  int64   `json:"chunks"`
	P50MS   float64 `json:"p50_ms"`
	P99MS   float64 `json:"p99_ms"`
	P999MS  float64 `json:"p99_9_ms"`
	MostMS  float64 `json:"most_ms"`
	Late    int64   `json:"over_100_ms"`
}

// The vendor: reads a request, and streams until its peer hangs up.
func serve(peer net.Conn) {
	defer peer.Close()
	reader := bufio.NewReaderSize(peer, 8*1024)
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
	if _, err := io.CopyN(io.Discard, reader, int64(length)); err != nil {
		return
	}
	if _, err := peer.Write(head); err != nil {
		return
	}
	for next := time.Now(); ; next = next.Add(gap) {
		time.Sleep(time.Until(next))
		counted := measuring.Load()
		if _, err := peer.Write(chunk(time.Now())); err != nil {
			return
		}
		if counted {
			sent.Add(1)
		}
	}
}

func chunk(now time.Time) []byte {
	data := fmt.Sprintf(`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"bench",`+
		`"system_fingerprint":"fp_0123456789","choices":[{"index":0,"delta":{"content":"@%d of the matter"},`+
		`"finish_reason":null}],"usage":null}`+"\n\n", now.UnixNano())
	return []byte(fmt.Sprintf("%x\r\n%s\r\n", len(data), data))
}

// A client: reads lines, whatever the wire, and looks for the time in them.
func read(address string, request []byte) {
	peer, err := net.Dial("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	defer peer.Close()
	if _, err = peer.Write(request); err != nil {
		log.Fatal(err)
	}
	reader := bufio.NewReaderSize(peer, 8*1024)
	if status, err := reader.ReadString('\n'); err != nil || !strings.Contains(status, " 200 ") {
		log.Fatalf("answered %q (%v)", status, err)
	}
	for first := true; ; {
		line, err := reader.ReadSlice('\n')
		if err != nil {
			if !over.Load() {
				broken.Add(1)
			}
			return
		}
		at := bytes.IndexByte(line, '@') + 1
		if at == 0 || at+stamp > len(line) {
			continue
		}
		was, err := strconv.ParseInt(string(line[at:at+stamp]), 10, 64)
		if err != nil {
			continue
		}
		if first {
			first = false
			opened.Add(1)
		}
		if measuring.Load() {
			note(time.Now().UnixNano() - was)
		}
	}
}

func note(late int64) {
	place := late / int64(step)
	if place > steps {
		place = steps
	}
	if place < 0 {
		place = 0
	}
	seen[place].Add(1)
	for before := most.Load(); late > before && !most.CompareAndSwap(before, late); before = most.Load() {
	}
}

func told(streams int64) figures {
	out := figures{Streams: streams, Broken: broken.Load(), Sent: sent.Load(), MostMS: float64(most.Load()) / 1e6}
	for place := range seen {
		count := seen[place].Load()
		out.Chunks += count
		if time.Duration(place)*step >= gap {
			out.Late += count
		}
	}
	for share, where := range map[float64]*float64{0.5: &out.P50MS, 0.99: &out.P99MS, 0.999: &out.P999MS} {
		left := int64(share * float64(out.Chunks))
		for place := range seen {
			if left -= seen[place].Load(); left < 0 {
				*where = (time.Duration(place+1) * step).Seconds() * 1000
				break
			}
		}
	}
	return out
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("streams COUNT SECONDS")
	}
	count, err := strconv.ParseInt(os.Args[1], 10, 64)
	if err != nil {
		log.Fatal(err)
	}
	seconds, err := strconv.ParseFloat(os.Args[2], 64)
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		for {
			peer, err := listener.Accept()
			if err != nil {
				log.Fatal(err)
			}
			go serve(peer)
		}
	}()
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil {
		log.Fatal(err)
	}
	address, file, _ := strings.Cut(strings.TrimSpace(line), " ")
	request, err := os.ReadFile(file)
	if err != nil {
		log.Fatal(err)
	}
	for index := int64(0); index < count; index++ {
		go read(address, request)
		time.Sleep(opening)
	}
	for opened.Load()+broken.Load() < count {
		time.Sleep(gap)
	}
	time.Sleep(settling)
	measuring.Store(true)
	fmt.Println("begin")
	time.Sleep(time.Duration(seconds * float64(time.Second)))
	measuring.Store(false)
	time.Sleep(time.Second) // What is on its way.
	fmt.Println("end")
	over.Store(true)
	answer, _ := json.Marshal(told(count))
	fmt.Println(string(answer))
}
