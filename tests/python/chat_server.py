"""The other side of a tutorial's chat: chat_server.py HOST REPLY... answers each message with the next reply."""
import socket
import sys

host, replies = sys.argv[1], sys.argv[2:]
sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((host, 0))
print("ready", sock.getsockname()[1], flush=True)
for reply in replies:
    message, addr = sock.recvfrom(1024)
    print(message.decode("utf-8"), flush=True)
    sock.sendto(reply.encode("utf-8"), addr)
sock.close()
