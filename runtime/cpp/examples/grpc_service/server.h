// The service behind a port: started, asked for its health, stopped.
#pragma once

#include <grpcpp/server.h>

#include <chrono>
#include <memory>
#include <string>

#include "service.h"

struct ServerOptions {
  ServiceOptions service;
  std::string address = "127.0.0.1:50051";  // port 0: any that is free
  int requests = 64;                        // threads of gRPC, and so requests at a time; more wait or are refused
  int message_bytes = 64 << 20;             // of a request or an answer
};

class Server {
 public:
  // Throws vtr::Error where the bundle cannot be used or the port is taken.
  explicit Server(const ServerOptions &options);
  ~Server();

  int port() const { return port_; }
  const Service &service() const { return service_; }
  // Health turns to NOT_SERVING, nothing new is taken; what runs is cancelled after `grace`. Returns when all has
  // ended.
  void stop(std::chrono::milliseconds grace);

 private:
  Service service_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};
