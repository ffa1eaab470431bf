package shop.payment;

import java.io.IOException;
import java.net.InetSocketAddress;

/** Starts the payment service on PORT, at the address LISTEN. */
public final class Main {
    private Main() {}

    public static void main(String[] args) throws IOException {
        int port = Integer.parseInt(setting("PORT", "8080"));
        PaymentServer server = new PaymentServer(new InetSocketAddress(setting("LISTEN", "0.0.0.0"), port), new Till());
        // SIGTERM: no new connections; what runs has a second to end.
        Runtime.getRuntime().addShutdownHook(new Thread(() -> server.stop(1)));
        server.start();
        System.out.println("payment: listening on port " + server.port() + ", Java " + System.getProperty("java.version"));
    }

    private static String setting(String name, String otherwise) {
        String value = System.getenv(name);
        return value == null || value.isEmpty() ? otherwise : value;
    }
}
