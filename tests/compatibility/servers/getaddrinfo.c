/* How many addresses a name has for a program of this C library. Usage: getaddrinfo NAME. */
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

int main(int count, char **arguments) {
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
    int addresses = 0, error = getaddrinfo(arguments[count - 1], "80", &hints, &found);
    if (error) {
        printf("%s\n", gai_strerror(error));
        return 0;
    }
    for (struct addrinfo *each = found; each; each = each->ai_next) addresses++;
    printf("%d\n", addresses);
    return 0;
}
