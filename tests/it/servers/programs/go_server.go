// An SFTP server on x/crypto/ssh and pkg/sftp: PORT HOST_KEY AUTHORIZED_KEYS disk|memory|one.
//
// disk: pkg/sftp's server over the machine's files. memory: its request server over files
// in memory, which no reconnect may lose, so all sessions share one. one: as disk, one
// channel a connection, one connection after the other, as in the library's example.
package main

import (
	"bytes"
	"io"
	"log"
	"net"
	"os"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

var memory = sftp.InMemHandler()

func main() {
	port, hostKey, authorized, kind := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	allowed, err := os.ReadFile(authorized)
	check(err)
	client, _, _, _, err := ssh.ParseAuthorizedKey(allowed)
	check(err)
	config := &ssh.ServerConfig{
		PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if bytes.Equal(key.Marshal(), client.Marshal()) {
				return nil, nil
			}
			return nil, io.EOF
		},
	}
	text, err := os.ReadFile(hostKey)
	check(err)
	signer, err := ssh.ParsePrivateKey(text)
	check(err)
	config.AddHostKey(signer)
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	check(err)
	for {
		connection, err := listener.Accept()
		check(err)
		if kind == "one" {
			serve(connection, config, kind)
		} else {
			go serve(connection, config, kind)
		}
	}
}

func serve(connection net.Conn, config *ssh.ServerConfig, kind string) {
	defer connection.Close()
	_, channels, requests, err := ssh.NewServerConn(connection, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for asked := range channels {
		if asked.ChannelType() != "session" {
			asked.Reject(ssh.UnknownChannelType, "unknown channel type")
			continue
		}
		channel, requests, err := asked.Accept()
		if err != nil {
			return
		}
		go func() {
			for request := range requests {
				request.Reply(request.Type == "subsystem" && string(request.Payload[4:]) == "sftp", nil)
			}
		}()
		if kind == "one" {
			sessions(channel, kind)
		} else {
			go sessions(channel, kind)
		}
	}
}

func sessions(channel ssh.Channel, kind string) {
	defer channel.Close()
	if kind == "memory" {
		sftp.NewRequestServer(channel, memory).Serve()
		return
	}
	server, err := sftp.NewServer(channel)
	if err == nil {
		server.Serve()
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
