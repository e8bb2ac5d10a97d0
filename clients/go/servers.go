package main

import (
	"errors"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // asks each server for its health, as the service config says
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	pb "github.com/apiflux/apiflux-grpc/clients/go/apifluxv1"
)

// With several servers each RPC goes to the next of those that are there and say SERVING.
const serviceConfig = `{
  "loadBalancingConfig": [{"round_robin": {}}],
  "healthCheckConfig": {"serviceName": "apiflux.v1.FluxService"}
}`

// dial makes the channel to one server, HOST:PORT, or to several: HOST:PORT,HOST:PORT, or dns:///NAME:PORT for all
// addresses of a name.
func dial(target string) (conn *grpc.ClientConn, several bool, err error) {
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(), // the service runs beside its callers
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(largest)),
	}
	addresses := strings.Split(target, ",")
	several = len(addresses) > 1 || strings.HasPrefix(target, "dns:")
	if several {
		options = append(options, grpc.WithDefaultServiceConfig(serviceConfig))
	}
	if len(addresses) > 1 {
		// A list isn't a name that could be looked up again.
		list := manual.NewBuilderWithScheme("list")
		var state resolver.State
		for _, address := range addresses {
			state.Endpoints = append(state.Endpoints, resolver.Endpoint{
				Addresses: []resolver.Address{{Addr: address, ServerName: address}},
			})
		}
		list.InitialState(state)
		options = append(options, grpc.WithResolvers(list))
		target = "list:///" + addresses[0]
	}
	conn, err = grpc.NewClient(target, options...)
	return conn, several, err
}

// isLost tells whether another server may do what this one didn't: it went away, or it drains.
func isLost(err error) bool {
	return errors.Is(err, errDrained) || errors.Is(err, errNoSummary) || status.Code(err) == codes.Unavailable
}

// isUnsent tells whether a result only says that its call was never sent, for its server is shutting down.
func isUnsent(result *pb.CallResult) bool {
	return result.GetFailure() == pb.Reason_REASON_DRAINING
}
