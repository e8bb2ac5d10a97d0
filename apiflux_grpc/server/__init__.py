"""The gRPC server: the only place on the server side that imports grpc."""
