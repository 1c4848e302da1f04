"""The first TCP client of a tutorial: greeting_tcp_client.py HOST PORT MESSAGE prints the answer."""
import socket
import sys

host, port, message = sys.argv[1], int(sys.argv[2]), sys.argv[3]
sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
sock.connect((host, port))
sock.send(message.encode("utf-8"))
answer = sock.recv(1024)
rest = sock.recv(1024)
sock.close()
print(answer, rest)
