// Command run_batch runs a batch of calls and prints each result as it comes, one JSON object a line.
//
//	run_batch [--pool NAME] [--tries N] HOST:PORT[,HOST:PORT...] PATH...
//
// Of several servers one takes the batch, which is a single RPC; if it is lost or drains, what has no result goes to the
// next. All calls here are GETs, so one that was made already may be made again.
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
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
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
	errDrained    = errors.New("the server is shutting down")
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
		fmt.Fprintln(os.Stderr, "usage: run_batch [--pool NAME] [--tries N] HOST:PORT[,HOST:PORT...] PATH...")
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
	conn, several, err := dial(target)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", target, err)
		return badRequest
	}
	defer conn.Close()

	start := time.Now()
	work := newBatch(conn, *pool, paths, several)
	if err = checkHealth(ctx, conn); err == nil {
		err = work.process(ctx, *tries)
	}
	if err != nil {
		return explain(ctx, target, err)
	}
	fmt.Fprintf(os.Stderr, "%d of %d succeeded in %s\n",
		work.succeeded, len(paths), time.Since(start).Round(time.Millisecond))
	if work.succeeded < len(paths) {
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

// batch is the work: what of it has no result yet, by index of the whole.
type batch struct {
	conn      *grpc.ClientConn
	pool      string
	paths     []string
	open      []int64
	several   bool
	succeeded int
}

func newBatch(conn *grpc.ClientConn, pool string, paths []string, several bool) *batch {
	open := make([]int64, len(paths))
	for index := range open {
		open[index] = int64(index)
	}
	return &batch{conn: conn, pool: pool, paths: paths, open: open, several: several}
}

// process runs the batch. A full server has sent nothing of it and says when to come back; it is asked again then. Of
// several servers the next gets what one that was lost has left. So many tries in all without a result in between.
func (b *batch) process(ctx context.Context, tries int) error {
	for try := 1; ; try++ {
		before := len(b.open)
		err := b.once(ctx)
		if err == nil && len(b.open) == 0 {
			return nil
		}
		if err == nil {
			err = errDrained
		}
		delay, again := retryDelay(err)
		if b.several && isLost(err) {
			delay, again = time.Second, true
			if len(b.open) < before {
				delay, try = 0, 0
			}
		}
		if !again || try == tries {
			return err
		}
		fmt.Fprintf(os.Stderr, "%s; trying again in %s\n", describe(err), delay)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// once sends what is open as one batch.
func (b *batch) once(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx) // leaving early cancels the batch
	defer cancel()
	sent := b.open
	request := &pb.ProcessRequest{Pool: b.pool}
	for _, index := range sent {
		request.Calls = append(request.Calls, &pb.Call{Path: b.paths[index]})
	}
	stream, err := pb.NewFluxServiceClient(b.conn).Process(ctx, request)
	if err != nil {
		return err
	}
	done := make(map[int64]bool, len(sent))
	defer func() {
		b.open = slices.DeleteFunc(slices.Clone(sent), func(index int64) bool { return done[index] })
	}()
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	isWhole := false
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			if !isWhole {
				return errNoSummary
			}
			return nil
		}
		if err != nil {
			return err
		}
		for _, result := range message.GetResults() {
			if b.several && isUnsent(result) {
				continue
			}
			index := sent[result.GetIndex()]
			done[index] = true
			if result.GetFailure() == pb.Reason_REASON_UNSPECIFIED && result.GetError() == nil {
				b.succeeded++
			}
			if err := out.Encode(lineOf(result, index, b.paths[index])); err != nil {
				return err
			}
		}
		isWhole = isWhole || message.GetSummary() != nil
	}
}

func lineOf(result *pb.CallResult, index int64, path string) line {
	row := line{
		Index:    index,
		Path:     path,
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
