package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/pprof"
)

const maxBody = 8 << 20

type handler struct {
	options  options
	sessions *store
	counters *counters
}

func newHandler(o options, sessions *store) http.Handler {
	h := &handler{o, sessions, newCounters()}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", h.health)
	mux.HandleFunc("GET /sessions/{id}", h.counted("get", h.getSession))
	mux.HandleFunc("PUT /sessions/{id}", h.counted("put", h.putSession))
	mux.HandleFunc("GET /report", h.counted("report", h.report))
	if o.metrics {
		mux.HandleFunc("GET /metrics", h.metrics)
	}
	if o.pprof {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux
}

func (h *handler) counted(name string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h.counters.add(name)
		next(w, r)
	}
}

// health answers 200 when the live set is loaded, and tells how many sessions there are.
func (h *handler) health(w http.ResponseWriter, _ *http.Request) {
	status := http.StatusOK
	if !h.sessions.ready() {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, map[string]int{
		"sessions": h.sessions.count,
		"loaded":   int(h.sessions.loaded.Load()),
	})
}

func (h *handler) getSession(w http.ResponseWriter, r *http.Request) {
	session := h.sessions.get(r.PathValue("id"))
	if session == nil {
		http.Error(w, "no such session", http.StatusNotFound)
		return
	}
	writeJSON(w, http.StatusOK, session)
}

func (h *handler) putSession(w http.ResponseWriter, r *http.Request) {
	session := new(Session)
	body := http.MaxBytesReader(w, r.Body, maxBody)
	if err := json.NewDecoder(body).Decode(session); err != nil {
		http.Error(w, fmt.Sprintf("not a session: %v", err), http.StatusBadRequest)
		return
	}
	if session.ID != r.PathValue("id") {
		http.Error(w, "the id in the body is another", http.StatusBadRequest)
		return
	}
	session.Expires = expiry(h.options.ttl)
	h.sessions.put(session)
	w.WriteHeader(http.StatusNoContent)
}

// report encodes sessions until there are enough bytes, to tell only a few figures of them: the
// large short-lived garbage that exports and reports make.
func (h *handler) report(w http.ResponseWriter, _ *http.Request) {
	summary := struct {
		Sessions int     `json:"sessions"`
		Items    int     `json:"items"`
		Value    float64 `json:"value"`
		Bytes    int     `json:"bytes"`
	}{}
	var export [][]byte
	h.sessions.each(func(session *Session) bool {
		line, err := json.Marshal(session)
		if err != nil {
			return false
		}
		export = append(export, line)
		summary.Sessions++
		summary.Bytes += len(line)
		for _, item := range session.Cart {
			summary.Items += item.Quantity
			summary.Value += item.Price * float64(item.Quantity)
		}
		return summary.Bytes < int(h.options.garbage)
	})
	writeJSON(w, http.StatusOK, summary)
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client went away: nobody is left to tell
}
