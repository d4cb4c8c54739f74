// A bare gateway on Go's net/http, to compare with: it knows a key from a map, reads the top level of the body, puts in the model's
// other name and its own key, passes the answer on, and adds up tokens and money in memory. No policies, limits, wires or records.
//
//	bare UPSTREAM KEY
//
// Prints its port and Go's version, serves until it is killed.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"sync"
)

type account struct {
	sync.Mutex
	calls, picoUSD int64
}

type usage struct {
	Input  int64 `json:"prompt_tokens"`
	Output int64 `json:"completion_tokens"`
}

type gateway struct {
	upstream string
	accounts map[string]*account
	models   map[string]json.RawMessage
	client   *http.Client
}

func refuse(w http.ResponseWriter, status int, why string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"error":{"message":%q}}`, why)
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	who := g.accounts[r.Header.Get("Authorization")]
	if who == nil {
		refuse(w, http.StatusUnauthorized, "unknown key")
		return
	}
	body, err := io.ReadAll(r.Body)
	fields := map[string]json.RawMessage{}
	if err != nil || json.Unmarshal(body, &fields) != nil {
		refuse(w, http.StatusBadRequest, "no JSON object")
		return
	}
	var name string
	_ = json.Unmarshal(fields["model"], &name)
	model, known := g.models[name]
	if !known {
		refuse(w, http.StatusNotFound, "unknown model")
		return
	}
	fields["model"] = model
	body, _ = json.Marshal(fields)
	asked, _ := http.NewRequestWithContext(r.Context(), http.MethodPost, g.upstream+r.URL.Path, bytes.NewReader(body))
	asked.Header.Set("Content-Type", "application/json")
	asked.Header.Set("Authorization", "Bearer the-vendors-own")
	answer, err := g.client.Do(asked)
	if err != nil {
		refuse(w, http.StatusBadGateway, "the upstream is away")
		return
	}
	defer answer.Body.Close()
	w.Header().Set("Content-Type", answer.Header.Get("Content-Type"))
	var used *usage
	if bytes.Equal(fields["stream"], []byte("true")) {
		used = passStream(w, answer.Body)
	} else {
		used = passWhole(w, answer)
	}
	if used != nil {
		who.Lock()
		who.calls++
		who.picoUSD += used.Input*2_500_000 + used.Output*10_000_000
		who.Unlock()
	}
}

func passWhole(w http.ResponseWriter, answer *http.Response) *usage {
	body, _ := io.ReadAll(answer.Body)
	var read struct{ Usage *usage }
	_ = json.Unmarshal(body, &read)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(answer.StatusCode)
	_, _ = w.Write(body)
	return read.Usage
}

func passStream(w http.ResponseWriter, body io.Reader) *usage {
	var read struct{ Usage *usage }
	flusher := w.(http.Flusher)
	reader := bufio.NewReaderSize(body, 64*1024)
	for {
		line, err := reader.ReadSlice('\n')
		if bytes.Contains(line, []byte(`"usage":{`)) {
			_ = json.Unmarshal(line[len("data: "):], &read)
		}
		_, _ = w.Write(line)
		if reader.Buffered() == 0 {
			flusher.Flush()
		}
		if err != nil {
			return read.Usage
		}
	}
}

func main() {
	upstream, key := os.Args[1], os.Args[2]
	transport := &http.Transport{MaxIdleConns: 4096, MaxIdleConnsPerHost: 4096, DisableCompression: true}
	g := &gateway{
		upstream: upstream,
		accounts: map[string]*account{"Bearer " + key: {}},
		models:   map[string]json.RawMessage{"openai/bench": json.RawMessage(`"bench"`)},
		client:   &http.Client{Transport: transport},
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port, runtime.Version())
	log.Fatal(http.Serve(listener, g))
}
