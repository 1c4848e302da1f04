"""The first UDP client of a tutorial: datagram_client.py HOST PORT TEXT... sends each text and prints each answer."""
import socket
import sys

host, port, texts = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(20)
for text in texts:
    sock.sendto(text.encode("utf-8"), (host, port))
    answer, addr = sock.recvfrom(1024)
    print(answer.decode("utf-8"))
sock.close()
