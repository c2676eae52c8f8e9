import java.io.*;
import java.nio.charset.StandardCharsets;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;

/* Partition prints, for each key that it reads (one a line, as hexadecimal), the partition of n that the Java client gives it. */
public class Partition {
    public static void main(String[] args) throws IOException {
        int n = Integer.parseInt(args[0]);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        for (String line; (line = in.readLine()) != null; ) {
            byte[] key = new byte[line.length() / 2];
            for (int i = 0; i < key.length; i++)
                key[i] = (byte) Integer.parseInt(line.substring(2 * i, 2 * i + 2), 16);
            System.out.println(BuiltInPartitioner.partitionForKey(key, n));
        }
    }
}
