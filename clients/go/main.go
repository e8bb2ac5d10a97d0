// Command run_batch runs a batch of calls and prints each result as it comes, one JSON object a line.
//
//	run_batch [--pool NAME] [--tries N] HOST:PORT PATH...
//
// Exit codes: 0 every call succeeded; 2 usage, or a request that the server can't accept; 3 some calls failed; 4 the
// server isn't there, isn't healthy, stayed full, or the batch was cut short; 130 Ctrl-C, which cancels the batch.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "github.com/apiflux/apiflux-grpc/clients/go/apifluxv1"
)

const (
	fine        = 0
	badRequest  = 2
	callsFailed = 3
	cutShort    = 4
	interrupted = 130

	healthTimeout = 10 * time.Second
	largest       = 64 << 20 // bytes of a message; gRPC's default is 4 MiB
)

var (
	errNotServing = errors.New("the server isn't healthy")
	errNoService  = errors.New("the server has no " + pb.FluxService_ServiceDesc.ServiceName)
	errNoSummary  = errors.New("the batch was cut short: no summary came")
)

// line is how a result is printed.
type line struct {
	Index    int64      `json:"index"`
	Path     string     `json:"path"`
	Key      string     `json:"key"`
	Attempts int32      `json:"attempts"`
	Status   int32      `json:"status,omitempty"`
	Body     *string    `json:"body,omitempty"`
	Error    *callError `json:"error,omitempty"`
}

type callError struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

func main() {
	os.Exit(run())
}

func run() int {
	pool := flag.String("pool", "", "the pool to use")
	tries := flag.Int("tries", 5, "how often to ask a server that is full")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: run_batch [--pool NAME] [--tries N] HOST:PORT PATH...")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() < 2 || *tries < 1 {
		flag.Usage()
		return badRequest
	}
	target, paths := flag.Arg(0), flag.Args()[1:]

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)                          // a second Ctrl-C kills
	if token := os.Getenv("APIFLUX_TOKEN"); token != "" { // without TLS it can be read on its way
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	conn, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(), // the service runs beside its callers
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(largest)))
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", target, err)
		return badRequest
	}
	defer conn.Close()

	var summary *pb.Summary
	if err = checkHealth(ctx, conn); err == nil {
		summary, err = process(ctx, conn, *pool, paths, *tries)
	}
	if err != nil {
		return explain(ctx, target, err)
	}
	fmt.Fprintf(os.Stderr, "%d of %d succeeded in %s\n",
		summary.GetSucceeded(), summary.GetTotal(), summary.GetElapsed().AsDuration().Round(time.Millisecond))
	if summary.GetSucceeded() < summary.GetTotal() {
		return callsFailed
	}
	return fine
}

// checkHealth asks the standard health service about ours.
func checkHealth(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	request := &healthpb.HealthCheckRequest{Service: pb.FluxService_ServiceDesc.ServiceName}
	response, err := healthpb.NewHealthClient(conn).Check(ctx, request)
	if status.Code(err) == codes.NotFound {
		return errNoService
	}
	if err != nil {
		return err
	}
	if response.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("%w: %s", errNotServing, response.GetStatus())
	}
	return nil
}

// process runs the batch. A full server has sent nothing of it and says when to come back; it is asked again then, so
// many times in all.
func process(
	ctx context.Context, conn *grpc.ClientConn, pool string, paths []string, tries int,
) (*pb.Summary, error) {
	request := &pb.ProcessRequest{Pool: pool}
	for _, path := range paths {
		request.Calls = append(request.Calls, &pb.Call{Path: path})
	}
	for try := 1; ; try++ {
		summary, err := processOnce(ctx, conn, request)
		delay, ok := retryDelay(err)
		if !ok || try == tries {
			return summary, err
		}
		fmt.Fprintf(os.Stderr, "%s; trying again in %s\n", describe(err), delay)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func processOnce(ctx context.Context, conn *grpc.ClientConn, request *pb.ProcessRequest) (*pb.Summary, error) {
	ctx, cancel := context.WithCancel(ctx) // leaving early cancels the batch
	defer cancel()
	stream, err := pb.NewFluxServiceClient(conn).Process(ctx, request)
	if err != nil {
		return nil, err
	}
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	var summary *pb.Summary
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			if summary == nil {
				return nil, errNoSummary
			}
			return summary, nil
		}
		if err != nil {
			return nil, err
		}
		for _, result := range message.GetResults() {
			if err := out.Encode(lineOf(result, request)); err != nil {
				return nil, err
			}
		}
		if message.GetSummary() != nil {
			summary = message.GetSummary()
		}
	}
}

func lineOf(result *pb.CallResult, request *pb.ProcessRequest) line {
	row := line{
		Index:    result.GetIndex(),
		Path:     request.GetCalls()[result.GetIndex()].GetPath(),
		Key:      result.GetKeyLabel(),
		Attempts: result.GetAttempts(),
	}
	if failure := result.GetError(); failure != nil {
		row.Error = &callError{reasonOf(failure), failure.GetMessage()}
		return row
	}
	body := strings.ToValidUTF8(string(result.GetResponse().GetBody()), "\uFFFD")
	row.Status, row.Body = result.GetResponse().GetStatusCode(), &body
	return row
}

// reasonOf finds the reason of a call's error, like NOT_SENT or TIMEOUT.
func reasonOf(failure *rpcstatus.Status) string {
	for _, detail := range status.FromProto(failure).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// retryDelay tells how long to wait if the server was full.
func retryDelay(err error) (time.Duration, bool) {
	if status.Code(err) != codes.ResourceExhausted {
		return 0, false
	}
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay().AsDuration(), true
		}
	}
	return 0, false // gRPC's own: a message is too large, and will be
}

// explain says what went wrong and returns the exit code.
func explain(ctx context.Context, target string, err error) int {
	if ctx.Err() != nil {
		fmt.Fprintln(os.Stderr, "interrupted: the batch was cancelled")
		return interrupted
	}
	fmt.Fprintf(os.Stderr, "%s: %s\n", target, describe(err))
	switch status.Code(err) {
	case codes.InvalidArgument, codes.NotFound:
		return badRequest
	default:
		return cutShort
	}
}

// describe names a status by the word that the contract and every other language use.
func describe(err error) string {
	if failure, ok := status.FromError(err); ok {
		return fmt.Sprintf("%s: %s", code.Code(failure.Code()), failure.Message())
	}
	return err.Error()
}
