"""The first UDP server of a tutorial: greeting_udp_server.py HOST answers one greeting, then ends."""
import socket
import sys

host = sys.argv[1]
sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((host, 0))
print("ready", sock.getsockname()[1], flush=True)
greeting, addr = sock.recvfrom(1024)
sock.sendto(b"hi", addr)
sock.close()
print(greeting)
