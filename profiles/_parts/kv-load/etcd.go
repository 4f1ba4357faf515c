package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

type etcd struct{ client *clientv3.Client }

// openEtcd connects to one member; the client's own balancer would spread over several.
func openEtcd(ctx context.Context, endpoint string) (connection, error) {
	config := clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()}
	if strings.HasPrefix(endpoint, "https:") {
		var err error
		if config.TLS, err = clientTLS(); err != nil {
			return nil, err
		}
	}
	client, err := clientv3.New(config)
	if err != nil {
		return nil, err
	}
	if _, err = client.Get(ctx, "bench", clientv3.WithSerializable()); err != nil { // connects
		client.Close()
		return nil, err
	}
	return &etcd{client}, nil
}

// clientTLS has the client's certificate, which minicluster puts into the container.
func clientTLS() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair("/client/cert.pem", "/client/key.pem")
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile("/client/ca.pem")
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("/client/ca.pem has no certificate")
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, MinVersion: tls.VersionTLS12}, nil
}

func (e *etcd) put(ctx context.Context, key string, value []byte) error {
	_, err := e.client.Put(ctx, key, string(value))
	return err
}

func (e *etcd) get(ctx context.Context, key string) ([]byte, error) {
	answer, err := e.client.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	if len(answer.Kvs) == 0 {
		return nil, errors.New("no such key")
	}
	return answer.Kvs[0].Value, nil
}

func (e *etcd) close() { e.client.Close() }
