package main

import (
	"context"
	"errors"
	"net/http"
	"os"

	"github.com/hashicorp/consul/api"
)

type consul struct {
	store     *api.KV
	transport *http.Transport
}

// openConsul makes a client with one connection: HTTP/1.1, so one request at a time.
func openConsul(ctx context.Context, endpoint string) (connection, error) {
	config := api.DefaultConfig()
	config.Address, config.Token = endpoint, os.Getenv("BENCH_TOKEN")
	config.Transport.MaxConnsPerHost, config.Transport.MaxIdleConnsPerHost = 1, 1
	client, err := api.NewClient(config)
	if err != nil {
		return nil, err
	}
	opened := &consul{client.KV(), config.Transport}
	_, _, err = opened.store.Get("bench", (&api.QueryOptions{AllowStale: true}).WithContext(ctx)) // connects
	if err != nil {
		opened.close()
		return nil, err
	}
	return opened, nil
}

func (c *consul) put(ctx context.Context, key string, value []byte) error {
	_, err := c.store.Put(&api.KVPair{Key: key, Value: value}, (&api.WriteOptions{}).WithContext(ctx))
	return err
}

func (c *consul) get(ctx context.Context, key string) ([]byte, error) {
	pair, _, err := c.store.Get(key, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return nil, err
	}
	if pair == nil {
		return nil, errors.New("no such key")
	}
	return pair.Value, nil
}

func (c *consul) close() { c.transport.CloseIdleConnections() }
