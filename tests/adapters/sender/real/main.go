// Go's net/http: PORT, a file for the query of each request, and perhaps a certificate and its key.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
)

func main() {
	http.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Method", r.Method)
		w.Write(body)
	})
	http.HandleFunc("/big", func(w http.ResponseWriter, r *http.Request) {
		size, _ := strconv.Atoi(r.URL.Query().Get("size"))
		body := bytes.Repeat([]byte("x"), size)
		w.Header().Set("Content-Length", strconv.Itoa(size))
		w.Write(body)
	})
	http.HandleFunc("/chunked", func(w http.ResponseWriter, r *http.Request) {
		for part := 0; part < 20; part++ {
			fmt.Fprintf(w, "%05d", part)
			w.(http.Flusher).Flush()
		}
	})
	http.HandleFunc("/none", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) })
	http.HandleFunc("/close", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		fmt.Fprint(w, "closed")
	})
	seen := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		log.WriteString(r.URL.RawQuery + "\n")
		http.DefaultServeMux.ServeHTTP(w, r)
	})
	if len(os.Args) > 3 {
		panic(http.ListenAndServeTLS(os.Args[1], os.Args[3], os.Args[4], seen))
	}
	panic(http.ListenAndServe(os.Args[1], seen))
}

var log, _ = os.OpenFile(os.Args[2], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
