package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

const (
	shards     = 64
	renewEvery = time.Second
)

type shard struct {
	sync.RWMutex
	sessions map[string]*Session
}

// store is a sharded map of sessions with expiry.
type store struct {
	options options
	count   int
	loaded  atomic.Int64
	checked atomic.Bool
	// checksum is set once, before checked.
	checksum string
	hash     maphash.Seed
	shards   [shards]shard
}

func newStore(o options) *store {
	s := &store{options: o, count: int(o.live / o.object), hash: maphash.MakeSeed()}
	for n := range s.shards {
		s.shards[n].sessions = make(map[string]*Session, s.count/shards)
	}
	return s
}

func (s *store) shardOf(id string) *shard {
	return &s.shards[maphash.String(s.hash, id)%shards]
}

// ready says whether all sessions are loaded and checked.
func (s *store) ready() bool { return s.checked.Load() }

// load fills the store, then checks the whole of it, as a service does before it takes traffic.
func (s *store) load(ctx context.Context) {
	for number := 0; number < s.count && ctx.Err() == nil; number++ {
		s.put(s.make(number))
		s.loaded.Add(1)
	}
	s.checksum = s.digest(ctx)
	s.checked.Store(true)
}

// digest is SHA-256 over all sessions as JSON, in the order of their numbers and without expiry: the
// same for the same seed and sizes.
func (s *store) digest(ctx context.Context) string {
	total := sha256.New()
	for number := 0; number < s.count && ctx.Err() == nil; number++ {
		session := s.get(sessionID(number))
		if session == nil {
			continue
		}
		timeless := *session
		timeless.Expires = time.Time{}
		encoded, err := json.Marshal(timeless)
		if err != nil {
			panic(err) // the type has nothing that can't be encoded
		}
		total.Write(encoded)
	}
	return hex.EncodeToString(total.Sum(nil))
}

// make gives the session of a number as it comes from elsewhere. Expiry is spread over the time to
// live, so that sessions don't all end at one moment.
func (s *store) make(number int) *Session {
	spread := s.options.ttl * time.Duration(number%1000) / 1000
	expires := time.Now().Add(s.options.ttl/2 + spread)
	return throughJSON(makeSession(s.options.seed, number, int(s.options.object), expires))
}

func (s *store) put(session *Session) {
	shard := s.shardOf(session.ID)
	shard.Lock()
	shard.sessions[session.ID] = session
	shard.Unlock()
}

// get returns nil for a session that is not there or has expired.
func (s *store) get(id string) *Session {
	shard := s.shardOf(id)
	shard.RLock()
	session := shard.sessions[id]
	shard.RUnlock()
	if session == nil || time.Now().After(session.Expires) {
		return nil
	}
	return session
}

// renewForEver replaces sessions before they expire, so that the live set keeps its size.
func (s *store) renewForEver(ctx context.Context) {
	ticker := time.NewTicker(renewEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			s.renew()
		}
	}
}

func (s *store) renew() {
	now := time.Now()
	for n := range s.shards {
		// Those that would expire before the next round or the one after: none is ever missing.
		for _, expired := range s.shards[n].expired(now.Add(2 * renewEvery)) {
			fresh := *expired
			fresh.Expires = now.Add(s.options.ttl)
			s.put(throughJSON(fresh))
		}
	}
}

func (s *shard) expired(now time.Time) []*Session {
	s.RLock()
	defer s.RUnlock()
	var found []*Session
	for _, session := range s.sessions {
		if now.After(session.Expires) {
			found = append(found, session)
		}
	}
	return found
}

// each calls visit with sessions until it returns false.
func (s *store) each(visit func(*Session) bool) {
	for n := range s.shards {
		if !s.shards[n].each(visit) {
			return
		}
	}
}

func (s *shard) each(visit func(*Session) bool) bool {
	s.RLock()
	defer s.RUnlock()
	for _, session := range s.sessions {
		if !visit(session) {
			return false
		}
	}
	return true
}
