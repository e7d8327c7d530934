#include "server.h"

#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

Server::Server(const ServerOptions &options) : service_(options.service) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ResourceQuota quota("requests");
  quota.SetMaxThreads(options.requests);
  grpc::ServerBuilder builder;
  builder.SetResourceQuota(quota);
  builder.SetMaxReceiveMessageSize(options.message_bytes);
  builder.SetMaxSendMessageSize(options.message_bytes);
  // A second server on the same port is an error, not a sharer of its requests.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddListeningPort(options.address, grpc::InsecureServerCredentials(), &port_);
  builder.RegisterService(&service_);
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port_ == 0) {
    throw vtr::Error(VTR_INVALID_ARGUMENT, options.address + " cannot be listened on; give a free HOST:PORT");
  }
  server_->GetHealthCheckService()->SetServingStatus(true);
  server_->GetHealthCheckService()->SetServingStatus(vtr::v1::Retrieval::service_full_name(), true);
}

Server::~Server() { stop(std::chrono::milliseconds(0)); }

void Server::stop(std::chrono::milliseconds grace) {
  if (server_ == nullptr) return;
  server_->GetHealthCheckService()->Shutdown();
  server_->Shutdown(std::chrono::system_clock::now() + grace);
  server_->Wait();
  server_.reset();
}
