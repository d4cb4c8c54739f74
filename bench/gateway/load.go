// Load in a closed loop: each connection sends its next request when the last answer is whole.
//
//	load ADDRESS REQUEST CONNECTIONS WARM_S SECONDS EXPECTED
//
// REQUEST is a file that holds one whole HTTP request; EXPECTED is what every answer must hold. Prints `begin` once it is warm, and
// then, after SECONDS, one line of JSON about what came in between: whoever starts it reads CPU times at both.
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
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

type figures struct {
	Answers int     `json:"answers"`
	Failed  int     `json:"failed"`
	Events  int     `json:"events"`
	P50MS   float64 `json:"p50_ms"`
	P99MS   float64 `json:"p99_ms"`
	FirstMS float64 `json:"first_p50_ms"`
}

// One answer: when it was whole, how long it and its first byte took.
type one struct {
	at          time.Time
	took, first time.Duration
	failed      bool
}

// Events that came within the time that is measured, also of answers that ended outside of it: streams that began together end together.
var (
	begin, end time.Time
	events     atomic.Int64
)

type client struct {
	peer     net.Conn
	reader   *bufio.Reader
	body     []byte
	expected []byte
}

func (c *client) ask(request []byte) (one, error) {
	began := time.Now()
	if _, err := c.peer.Write(request); err != nil {
		return one{}, err
	}
	status, err := c.reader.ReadSlice('\n')
	if err != nil {
		return one{}, err
	}
	got := one{first: time.Since(began), failed: !bytes.Contains(status, []byte(" 200 "))}
	length, err := c.head()
	if err != nil {
		return one{}, err
	}
	if err = c.read(length); err != nil {
		return one{}, err
	}
	got.at = time.Now()
	got.took = got.at.Sub(began)
	got.failed = got.failed || !bytes.Contains(c.body, c.expected)
	return got, nil
}

// The body's length, or -1 where it comes in chunks.
func (c *client) head() (int, error) {
	length := -1
	for {
		line, err := c.reader.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if len(line) <= 2 {
			return length, nil
		}
		if name, value, _ := bytes.Cut(line, []byte(":")); bytes.EqualFold(name, []byte("content-length")) {
			length, _ = strconv.Atoi(string(bytes.TrimSpace(value)))
		}
	}
}

func (c *client) read(length int) error {
	c.body = c.body[:0]
	if length >= 0 {
		return c.more(length)
	}
	for {
		line, err := c.reader.ReadSlice('\n')
		if err != nil {
			return err
		}
		size, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 32)
		if err != nil {
			return err
		}
		if err = c.more(int(size)); err != nil {
			return err
		}
		if _, err = c.reader.Discard(2); err != nil || size == 0 {
			return err
		}
	}
}

func (c *client) more(size int) error {
	start := len(c.body)
	if cap(c.body) < start+size {
		grown := make([]byte, start, 2*(start+size))
		copy(grown, c.body)
		c.body = grown
	}
	c.body = c.body[:start+size]
	_, err := io.ReadFull(c.reader, c.body[start:])
	if now := time.Now(); now.After(begin) && now.Before(end) {
		events.Add(int64(bytes.Count(c.body[start:], []byte("data: "))))
	}
	return err
}

func told(all []one) figures {
	var took, first []float64
	out := figures{Events: int(events.Load())}
	for _, got := range all {
		if got.at.Before(begin) || got.at.After(end) {
			continue
		}
		out.Answers++
		if got.failed {
			out.Failed++
		}
		took = append(took, got.took.Seconds()*1000)
		first = append(first, got.first.Seconds()*1000)
	}
	if out.Answers > 0 {
		sort.Float64s(took)
		sort.Float64s(first)
		out.P50MS, out.P99MS, out.FirstMS = took[len(took)/2], took[len(took)*99/100], first[len(first)/2]
	}
	return out
}

func number(text string) float64 {
	value, err := strconv.ParseFloat(text, 64)
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func main() {
	if len(os.Args) != 7 {
		log.Fatal("load ADDRESS REQUEST CONNECTIONS WARM_S SECONDS EXPECTED")
	}
	request, err := os.ReadFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	connections := int(number(os.Args[3]))
	warm := time.Duration(number(os.Args[4]) * float64(time.Second))
	measured := time.Duration(number(os.Args[5]) * float64(time.Second))
	began := time.Now()
	begin, end = began.Add(warm), began.Add(warm+measured)
	answers := make([][]one, connections)
	var running sync.WaitGroup
	for index := range answers {
		peer, err := net.Dial("tcp", os.Args[1])
		if err != nil {
			log.Fatal(err)
		}
		running.Add(1)
		go func(index int) {
			defer running.Done()
			c := client{peer: peer, reader: bufio.NewReaderSize(peer, 64*1024), expected: []byte(os.Args[6])}
			for time.Now().Before(end) {
				got, err := c.ask(request)
				if err != nil {
					log.Fatal(err)
				}
				answers[index] = append(answers[index], got)
			}
		}(index)
	}
	time.Sleep(time.Until(begin))
	fmt.Println("begin")
	time.Sleep(time.Until(end))
	fmt.Println("end")
	running.Wait()
	var all []one
	for _, some := range answers {
		all = append(all, some...)
	}
	line, _ := json.Marshal(told(all))
	fmt.Println(string(line))
}
