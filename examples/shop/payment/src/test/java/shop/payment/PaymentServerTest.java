package shop.payment;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;

import java.io.IOException;
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Scanner;
import org.junit.After;
import org.junit.Before;
import org.junit.Test;

public class PaymentServerTest {
    private PaymentServer server;

    @Before
    public void start() throws IOException {
        server = new PaymentServer(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), new Till());
        server.start();
    }

    @After
    public void stop() {
        server.stop(0);
    }

    private static final class Answer {
        int status;
        String body;
        String servedBy;
    }

    private Answer charge(String key, String body) throws IOException {
        HttpURLConnection connection =
                (HttpURLConnection) new URL("http://127.0.0.1:" + server.port() + "/charges").openConnection();
        connection.setRequestMethod("POST");
        connection.setRequestProperty("Idempotency-Key", key);
        connection.setDoOutput(true);
        connection.getOutputStream().write(body.getBytes(StandardCharsets.UTF_8));
        Answer answer = new Answer();
        answer.status = connection.getResponseCode();
        answer.servedBy = connection.getHeaderField("X-Served-By");
        InputStream in = answer.status < 400 ? connection.getInputStream() : connection.getErrorStream();
        try (Scanner scanner = new Scanner(in, "UTF-8").useDelimiter("\\A")) {
            answer.body = scanner.hasNext() ? scanner.next() : "";
        }
        return answer;
    }

    private static String order(int cents, String method) {
        return "{\"order\":\"1\",\"amountCents\":" + cents + ",\"currency\":\"EUR\",\"method\":\"" + method + "\"}";
    }

    @Test
    public void aTestCardThatPaysIsApprovedAndTheAnswerNamesItsJava() throws IOException {
        Answer answer = charge("a", order(1250, "card-pays"));
        assertEquals(200, answer.status);
        assertTrue(answer.body, answer.body.contains("\"approved\""));
        assertTrue(answer.servedBy, answer.servedBy.endsWith("; Java " + System.getProperty("java.version")));
    }

    @Test
    public void theSameKeyIsChargedOnce() throws IOException {
        assertEquals(charge("b", order(1250, "card-pays")).body, charge("b", order(1250, "card-pays")).body);
        assertTrue(!charge("b", order(1250, "card-pays")).body.equals(charge("c", order(1250, "card-pays")).body));
    }

    @Test
    public void aDeclinedCardAndTooMuchMoneyAreTurnedAwayWithAReason() throws IOException {
        assertEquals(402, charge("d", order(1250, "card-declined")).status);
        Answer much = charge("e", order(Till.LIMIT_CENTS + 1, "card-pays"));
        assertEquals(402, much.status);
        assertTrue(much.body, much.body.contains("limit"));
    }

    @Test
    public void whatIsNoChargeIsRefused() throws IOException {
        for (String body : Arrays.asList("", "{", "[]", "null", "{}", order(0, "card-pays"), order(5, "card-pays").replace("EUR", "USD"))) {
            assertEquals(body, 400, charge("f", body).status);
        }
        char[] much = new char[20_000];
        Arrays.fill(much, ' ');
        assertEquals(413, charge("g", new String(much)).status);
    }
}
