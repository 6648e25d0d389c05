// The other side of the interoperability tests: a Go program that registers and resolves by etcd's own
// naming package, as Go services do.
//
//	interop serve ENDPOINTS SERVICE METADATA   an echo server, registered under a lease until SIGTERM
//	interop call ENDPOINTS SERVICE             calls, round robin, until standard input ends
//	interop list ENDPOINTS SERVICE             what is registered
//
// Messages are raw bytes.  Results go to standard output as JSON, a line each.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	"go.etcd.io/etcd/client/v3/naming/resolver"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const (
	method     = "/echo/UnaryUnary"
	ttlSeconds = 5
	settle     = 500 * time.Millisecond
	roundRobin = `{"loadBalancingConfig": [{"round_robin": {}}]}`
)

// raw passes bytes through.
type raw struct{}

func (raw) Name() string { return "raw" }

func (raw) Marshal(message any) ([]byte, error) { return *message.(*[]byte), nil }

func (raw) Unmarshal(data []byte, message any) error {
	*message.(*[]byte) = append([]byte(nil), data...)
	return nil
}

func main() {
	if len(os.Args) < 4 {
		log.Fatal("usage: interop serve|call|list ENDPOINTS SERVICE [METADATA]")
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   strings.Split(os.Args[2], ","),
		DialTimeout: 10 * time.Second,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	service := os.Args[3]
	switch os.Args[1] {
	case "serve":
		err = serve(client, service, strings.Join(os.Args[4:], ""))
	case "call":
		err = call(client, service)
	case "list":
		err = list(client, service)
	default:
		err = fmt.Errorf("no such command: %s", os.Args[1])
	}
	if err != nil {
		log.Fatal(err)
	}
}

func serve(client *clientv3.Client, service, metadata string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	address := listener.Addr().String()
	echo := func(_ any, stream grpc.ServerStream) error {
		var request []byte
		if err := stream.RecvMsg(&request); err != nil {
			return err
		}
		reply := append([]byte(address+" "), request...)
		return stream.SendMsg(&reply)
	}
	server := grpc.NewServer(grpc.ForceServerCodec(raw{}), grpc.UnknownServiceHandler(echo))
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	lease, err := client.Grant(ctx, ttlSeconds)
	if err != nil {
		return err
	}
	beats, err := client.KeepAlive(ctx, lease.ID)
	if err != nil {
		return err
	}
	go func() {
		for range beats {
		}
	}()
	manager, err := endpoints.NewManager(client, service)
	if err != nil {
		return err
	}
	endpoint := endpoints.Endpoint{Addr: address}
	if metadata != "" {
		if err := json.Unmarshal([]byte(metadata), &endpoint.Metadata); err != nil {
			return err
		}
	}
	key := service + "/" + address
	if err := manager.AddEndpoint(ctx, key, endpoint, clientv3.WithLease(lease.ID)); err != nil {
		return err
	}
	tell(map[string]any{"ready": address})

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	select {
	case <-stop:
	case err := <-failed:
		return err
	}
	if err := manager.DeleteEndpoint(ctx, key); err != nil {
		return err
	}
	time.Sleep(settle) // a client may have picked this server a moment ago
	server.GracefulStop()
	return nil
}

func call(client *clientv3.Client, service string) error {
	builder, err := resolver.NewBuilder(client)
	if err != nil {
		return err
	}
	connection, err := grpc.NewClient(
		"etcd:///"+service,
		grpc.WithResolvers(builder),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(roundRobin),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})),
	)
	if err != nil {
		return err
	}
	defer connection.Close()
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	answers, failures := map[string]int{}, map[string]int{}
	shown := time.Now()
	for {
		select {
		case <-ended:
			tell(map[string]any{"answers": answers, "failures": failures})
			return nil
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		request, reply := []byte("x"), []byte(nil)
		if err := connection.Invoke(ctx, method, &request, &reply); err != nil {
			failures[status.Code(err).String()+": "+err.Error()]++
		} else {
			answers[strings.Fields(string(reply))[0]]++
		}
		cancel()
		if time.Since(shown) > 50*time.Millisecond {
			shown = time.Now()
			tell(map[string]any{"answers": answers, "failures": failures})
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func list(client *clientv3.Client, service string) error {
	manager, err := endpoints.NewManager(client, service)
	if err != nil {
		return err
	}
	found, err := manager.List(context.Background())
	if err != nil {
		return err
	}
	tell(found)
	return nil
}

func tell(what any) {
	line, err := json.Marshal(what)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(line))
}
