package main

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/go-zookeeper/zk"
)

// session is ZooKeeper's timeout of a session, in which no node is heard.
const session = 4 * time.Second

type zookeeper struct{ conn *zk.Conn }

type silent struct{}

func (silent) Printf(string, ...any) {}

// openZooKeeper has a session with one server. The client would look for another one by itself: only one is named.
func openZooKeeper(ctx context.Context, endpoint string) (connection, error) {
	dial := func(network, address string, timeout time.Duration) (net.Conn, error) {
		return net.DialTimeout(network, address, timeout)
	}
	conn, events, err := zk.Connect([]string{endpoint}, session, zk.WithLogger(silent{}), zk.WithDialer(dial))
	if err != nil {
		return nil, err
	}
	for {
		select {
		case event := <-events:
			if event.State == zk.StateHasSession {
				return &zookeeper{conn}, nil
			}
		case <-ctx.Done():
			conn.Close()
			return nil, ctx.Err()
		}
	}
}

// within gives up waiting for what has no way to be cancelled: its answer goes nowhere.
func within[T any](ctx context.Context, ask func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		value, err := ask()
		done <- answer{value, err}
	}()
	select {
	case got := <-done:
		return got.value, got.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

func (z *zookeeper) put(ctx context.Context, key string, value []byte) error {
	_, err := within(ctx, func() (*zk.Stat, error) {
		stat, err := z.conn.Set("/"+key, value, -1)
		if errors.Is(err, zk.ErrNoNode) {
			_, err = z.conn.Create("/"+key, value, 0, zk.WorldACL(zk.PermAll))
		}
		return stat, err
	})
	return err
}

func (z *zookeeper) get(ctx context.Context, key string) ([]byte, error) {
	return within(ctx, func() ([]byte, error) {
		value, _, err := z.conn.Get("/" + key)
		return value, err
	})
}

func (z *zookeeper) close() { go z.conn.Close() } // which waits for the server's answer
